//! Replaces the code of a function with code that does not do its work.

use std::io::{Cursor, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use serde_json::json;
use zip::write::SimpleFileOptions;

use crate::TestEnvironment;
use crate::test_environment::built;

/// The binary of this crate that always panics.
pub const PANICKING: &str = "panicking-function";

/// The binary of this crate that switches without checking health.
pub const UNCHECKED_SWITCH: &str = "unchecked-switch";

/// Replaces the function's code with that of the binary.
///
/// # Errors
/// When the binary is not built, or Lambda refuses it.
pub async fn break_function(
    env: &TestEnvironment,
    function: &str,
    binary: &str,
) -> anyhow::Result<()> {
    let binary = std::fs::read(built(binary)?)?;
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("bootstrap", stored.unix_permissions(0o755))?;
    zip.write_all(&binary)?;
    update(env, function, &zip.finish()?.into_inner()).await
}

/// Restores the function's own code.
///
/// # Errors
/// When the function is not built, or Lambda refuses it.
pub async fn restore_function(env: &TestEnvironment, function: &str) -> anyhow::Result<()> {
    let path = built(&format!("lambda/{function}/bootstrap.zip"))?;
    update(env, function, &std::fs::read(path)?).await
}

async fn update(env: &TestEnvironment, function: &str, zip: &[u8]) -> anyhow::Result<()> {
    let path = format!("/2015-03-31/functions/{}-{function}/code", env.name);
    let body = json!({ "ZipFile": BASE64_STANDARD.encode(zip) }).to_string();
    let client = env.cloud.client();
    client
        .rest("lambda", Method::PUT, &path, body.into())
        .await?;
    Ok(())
}
