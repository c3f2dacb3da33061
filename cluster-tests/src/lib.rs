//! The lab, end-to-end tests, benches.
