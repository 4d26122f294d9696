//! Checks a file of settings as the first step of a deployment does after a push: `check-settings <environment> <file>`.
//! Says what is right, or says what is wrong and exits with 2.

use std::process::ExitCode;

use lifecycle::{Environment, StepError};
use settings::{Deployment, Document};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(environment), Some(path)) = (arguments.next(), arguments.next()) else {
        eprintln!("check-settings <environment> <file>");
        return ExitCode::from(2);
    };
    match check(&environment, &path) {
        Ok(right) => {
            println!("{path}: {right}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{path}: {why}");
            ExitCode::from(2)
        }
    }
}

fn check(environment: &str, path: &str) -> Result<String, String> {
    let environment: Environment = environment.parse()?;
    let text = std::fs::read_to_string(path).map_err(|why| why.to_string())?;
    let wrong = |error: StepError| error.message;
    let document = Document::read(&environment, None, &text).map_err(wrong)?;
    let base = document.fields.base.clone();
    let frozen = document.frozen.clone();
    Deployment::of_push(document, &environment).map_err(wrong)?;
    let mut right = format!("every field is right for a push to {environment}");
    if let Some(base) = base {
        right += &format!(
            "; whether the task definition {base} exists and can be copied, the push finds out"
        );
    }
    if let Some(freeze) = frozen {
        right += &format!(
            "; as long as it has `frozen`, every push is refused: {}",
            freeze.reason()
        );
    }
    Ok(right)
}
