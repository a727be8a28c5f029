"""What a mask does to a sequence.  mask (B,T) bool, True = a real step."""
