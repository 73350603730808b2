//! keeps its files in a temporary directory, and is stopped by its number.

mod http;
mod peers;
mod remote;
