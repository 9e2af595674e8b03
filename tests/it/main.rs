//! All integration tests in one binary. Each module says what it drives.
