//! The program behind the echo images: answers with what it received.
