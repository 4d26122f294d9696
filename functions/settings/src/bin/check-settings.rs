//! Checks a file of settings as the first step of a deployment does after a push: `check-settings <environment> <file>`.
//! Says what is wrong and exits with 2.

use std::process::ExitCode;

use settings::{Deployment, Document};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(environment), Some(path)) = (arguments.next(), arguments.next()) else {
        eprintln!("check-settings <environment> <file>");
        return ExitCode::from(2);
    };
    match check(&environment, &path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{path}: {why}");
            ExitCode::from(2)
        }
    }
}

fn check(environment: &str, path: &str) -> Result<(), String> {
    let environment = environment.parse()?;
    let text = std::fs::read_to_string(path).map_err(|why| why.to_string())?;
    Document::read(&environment, None, &text)
        .and_then(|document| Deployment::of_push(document, &environment))
        .map(drop)
        .map_err(|error| error.message)
}
