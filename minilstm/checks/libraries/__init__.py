"""Layers of several libraries as the laws of masking see them.  Each library is imported when its module here is."""
