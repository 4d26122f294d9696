//! Settings of the programs, which are environment variables.

use std::env::VarError;
use std::str::FromStr;

use anyhow::Context;

/// The value of an environment variable, if it is set.
///
/// # Errors
/// When the value cannot be read.
pub fn setting<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &'static str,
) -> anyhow::Result<Option<T>> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text.parse().context(name)?)),
        Err(VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).context(name),
    }
}
