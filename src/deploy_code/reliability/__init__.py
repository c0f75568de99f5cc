"""Small, pure pieces that keep a failing part from being hammered."""
