//! Destinations of file routes, each against a real counterpart. `suite` has what all of them must do; a module per destination
//! says what it is at the other end, and adds what only it can do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
// Names of temporary files are the product's own.
#![allow(clippy::case_sensitive_file_extension_comparisons)]

#[path = "../support/counterparts.rs"]
mod counterparts;
mod fs;
mod http;
mod index;
mod nats;
mod s3;
mod sftp;
mod sftp_password;
mod suite;
mod trees;
