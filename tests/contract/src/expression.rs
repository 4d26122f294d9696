//! The names to which a JSONata expression refers.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// The names that an expression mentions with a `$`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// Variables of the machine.
    pub variables: BTreeSet<String>,
    /// Functions that neither JSONata nor Step Functions nor the expression itself defines.
    pub unknown_functions: BTreeSet<String>,
    /// Fields of `$states`, such as `result`.
    pub states: BTreeSet<String>,
}

/// The functions of JSONata, without `$eval`, and those of Step Functions, which does not have `$eval`:
/// <https://docs.jsonata.org/overview.html>,
/// <https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html#jsonata-functions-provided-by-sfn>.
const FUNCTIONS: &str = "
    string length substring substringBefore substringAfter uppercase lowercase trim pad contains split
    join match replace base64encode base64decode encodeUrlComponent encodeUrl decodeUrlComponent decodeUrl
    number abs floor ceil round power sqrt random formatNumber formatBase formatInteger parseInteger
    sum max min average boolean not exists count append sort reverse shuffle distinct zip
    keys lookup spread merge sift each error assert type now millis fromMillis toMillis
    map filter single reduce
    partition range hash uuid parse";

/// The text between `{%` and `%}`, if the string is an expression.
pub fn of(text: &str) -> Option<&str> {
    text.strip_prefix("{%")?.strip_suffix("%}").map(str::trim)
}

/// All expressions in a value, with the path to each.
pub fn within(value: &Value) -> Vec<(String, &str)> {
    fn collect<'a>(value: &'a Value, path: String, found: &mut Vec<(String, &'a str)>) {
        match value {
            Value::String(text) => found.extend(of(text).map(|expression| (path, expression))),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    collect(item, format!("{path}/{index}"), found);
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    // These have their own states and variables.
                    if name != "ItemProcessor" && name != "Branches" {
                        collect(field, format!("{path}/{name}"), found);
                    }
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(value, String::new(), &mut found);
    found
}

/// The names in an expression.
pub fn names(expression: &str) -> Names {
    static TEXT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?s)'(\\.|[^'\\])*'|"(\\.|[^"\\])*"|`[^`]*`|/\*.*?\*/"#).expect("a regex")
    });
    static NAME: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\$(?<name>[A-Za-z_]\w*)(?<field>\.[A-Za-z_]\w*)?\s*(?<after>\(|:=)?")
            .expect("a regex")
    });
    static PARAMETERS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"function\s*\(([^)]*)\)").expect("a regex"));

    let code = TEXT.replace_all(expression, "''");
    let mut local: BTreeSet<String> = PARAMETERS
        .captures_iter(&code)
        .flat_map(|list| {
            list[1]
                .split(',')
                .map(|name| name.trim().trim_start_matches('$').to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    local.extend(
        NAME.captures_iter(&code)
            .filter(|found| {
                found
                    .name("after")
                    .is_some_and(|after| after.as_str() == ":=")
            })
            .map(|found| found["name"].to_owned()),
    );

    let mut names = Names::default();
    for found in NAME.captures_iter(&code) {
        let name = &found["name"];
        let known = FUNCTIONS.split_whitespace().any(|known| known == name);
        let field = found.name("field").map(|field| &field.as_str()[1..]);
        let called = field.is_none()
            && found
                .name("after")
                .is_some_and(|after| after.as_str() == "(");
        if local.contains(name) {
            continue;
        }
        if name == "states" {
            names.states.extend(field.map(str::to_owned));
        } else if called && !known {
            names.unknown_functions.insert(name.to_owned());
        } else if !known {
            names.variables.insert(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_name_in_quotes_is_not_a_variable() {
        assert_eq!(names(r#"$a & ' $b \' $c' & "$d""#).variables, set(&["a"]));
    }

    #[test]
    fn functions_parameters_and_local_names_are_not_variables() {
        let found = names("($x := $count($list); $map($list, function($v, $i) { $v + $i + $x }))");
        assert_eq!(found.variables, set(&["list"]));
        assert!(found.unknown_functions.is_empty());
    }

    #[test]
    fn a_function_that_does_not_exist_is_reported() {
        assert_eq!(names("$eval('1')").unknown_functions, set(&["eval"]));
    }

    #[test]
    fn fields_of_states_are_listed() {
        let found = names("$states.errorOutput.Error & $states.input");
        assert_eq!(found.states, set(&["errorOutput", "input"]));
        assert!(found.variables.is_empty());
    }
}
