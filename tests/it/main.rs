//! All integration tests in one binary. Each module says what it drives.

/// Properties that hold for whatever comes: tuples, checksums, and frames made of noise.
mod props;
mod lab_errors;
