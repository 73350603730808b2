//! Stories with real peers: nginx, a git server over http and ssh, php-fpm, npm. What a story starts listens on loopback,
//! keeps its files in a temporary directory, and is stopped by its number.

mod build_tools;
mod http;
mod peers;
mod php;
mod remote;
mod ssh;
mod systemd;
