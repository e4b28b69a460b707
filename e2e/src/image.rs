//! Which program stands for an image.
