"""Are loss and gradients of each step finite?  On the host that is seen at once; on a GPU it is noted there, and seen
when the epoch is over, so that no step waits for an answer."""
import math

import numpy as np

from .. import backends
from ..device import DeviceArray
from .clipping import clip_global_norm


class Watch:
    """Over one epoch of a model on the host.

    epoch       its number, from 1 on
    batches     a list of index arrays
    why         why(rows): what in the data of these sequences may have been the reason, for messages
    losses      of the batches so far
    norms       of the gradients, of the steps so far"""

    def __init__(self, epoch, batches, why, losses=(), norms=()):
        self.epoch, self.batches, self.why = epoch, batches, why
        self.losses, self.norms = list(losses), list(norms)
        self.clipped = len(self.losses)         # batches whose gradients have been put to use

    def rows(self):
        """The batches to come, as ``take`` wants them."""
        return iter(self.batches[len(self.losses):])

    def see(self, loss):
        """The loss of the next batch, before it is put to use."""
        self.losses.append(float(loss))
        if not math.isfinite(loss):
            self.fail_of_loss(len(self.losses) - 1, loss)

    def clip(self, model, limit):
        """The gradients that belong to the losses since the last call, before they are."""
        try:
            self.norms.append(clip_global_norm(model, limit).norm)
        except FloatingPointError as error:
            self.fail(slice(self.clipped, len(self.losses)), str(error))
        self.clipped = len(self.losses)

    def read(self):
        """-> the losses of all batches, the norms of all steps."""
        return self.losses, self.norms

    def fail_of_loss(self, k, loss):
        self.fail(slice(k, k + 1), f"the loss is {loss}{self.why(self.batches[k])}")

    def fail(self, which, message):
        """which: a slice of the batches"""
        rows = [row for batch in self.batches[which] for row in batch.tolist()]
        raise FloatingPointError(f"epoch {self.epoch}, sequences {rows}: {message}") from None


class DeviceWatch(Watch):
    """The same on a GPU: a batch that is not finite moves nothing, nor does any after it, and ``read`` fails."""

    def __init__(self, epoch, batches, why):
        super().__init__(epoch, batches, why)
        self.notes = backends.module("training", "gpu").Notes(len(batches))
        self.loss = None

    def rows(self):
        arrays = backends.arrays("gpu")
        order, first = arrays.integers("rows", np.concatenate(self.batches)), 0
        for rows in self.batches:
            yield order.part(first, first + len(rows))
            first += len(rows)

    def see(self, loss):
        on_gpu = isinstance(loss, DeviceArray)
        self.loss = loss.reshape(1) if on_gpu else backends.arrays("gpu").from_numpy(np.array([loss], "float32"))

    def clip(self, model, limit):
        self.notes.clip([layer for _, layer in model.walk()], limit, self.loss)

    def read(self):
        losses, norms = self.notes.read()
        for k, (loss, norm) in enumerate(zip(losses, norms)):
            if not math.isfinite(loss):
                self.fail_of_loss(k, loss)
            if not math.isfinite(norm):
                self.fail(slice(k, k + 1), f"the norm of the gradients is {norm}")
        return losses.tolist(), norms.tolist()
