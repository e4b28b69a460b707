//! HTTP/1 load with an account of every request.
