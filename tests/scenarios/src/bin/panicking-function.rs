//! A function that panics whenever it is invoked, served as every function is.

use lifecycle::{StepError, serve::serve};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(|_: Value| async { panicking() }).await
}

fn panicking() -> Result<Value, StepError> {
    panic!("told to panic")
}
