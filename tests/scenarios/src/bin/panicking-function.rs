//! A function that panics on every invocation, served like every other function.

use lifecycle::{StepError, serve::serve};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(|_: Value| async { panicking() }).await
}

fn panicking() -> Result<Value, StepError> {
    panic!("this function always panics")
}
