//! Prints the JSON Schema of the settings, or with `input` that of an execution's input.

fn main() {
    let is_input = std::env::args().nth(1).is_some_and(|it| it == "input");
    let schema = match is_input {
        true => settings::schema::input(),
        false => settings::schema::settings(),
    };
    println!("{schema:#}");
}
