"""Operations that join rows, bytes and pixels; each is safe to repeat."""
