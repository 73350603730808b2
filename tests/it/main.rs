//! One binary for all tests; a file for each thing that is promised.

mod store;
