//! The AWS operations that a step calls, read from the source.
//!
//! The search starts at `run` and follows the names of functions through the crate, the library and
//! other steps. A call is a method of a client, which is named after its service: `elb.describe_rules()` is
//! DescribeRules. A name leads to every function of that name in its file, and into another file or crate by
//! a path (`routing::rules`) or an import. After a dot, it leads to the crate's methods of that name.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use heck::ToUpperCamelCase;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::Visit;

use crate::{Repository, Step};

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    /// The folder of its crate.
    home: String,
    /// Its file without `.rs`.
    file: String,
    /// The type that it is implemented for.
    owner: Option<String>,
    name: String,
}

/// What clients are called in the functions, and how actions on their services begin.
const CLIENTS: [(&str, &str); 9] = [
    ("autoscaling", "application-autoscaling"),
    ("cloudwatch", "cloudwatch"),
    ("ecr", "ecr"),
    ("ecs", "ecs"),
    ("elb", "elasticloadbalancing"),
    ("logs", "logs"),
    ("secrets", "secretsmanager"),
    ("sfn", "states"),
    ("ssm", "ssm"),
];

/// The library that reads no secret. What it names `secrets` are fields.
const WITHOUT_SECRETS: &str = "settings";

/// The calls and names in a function's body.
#[derive(Debug, Default)]
struct Body {
    /// Whether the function takes `self`.
    is_method: bool,
    operations: BTreeSet<String>,
    names: BTreeSet<Name>,
}

/// A name in a body that may be that of a function.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    name: String,
    before: Before,
    called: bool,
}

/// The token before a name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Before {
    Nothing,
    Dot,
    Segment(String),
}

/// The functions of a crate.
#[derive(Debug, Default)]
struct Crate {
    bodies: BTreeMap<Function, Body>,
    /// The names that its files import.
    imports: BTreeSet<String>,
}

/// The operations that each step's `run` can reach, as the actions that allow them: `ecs:CreateService`.
pub type Called = BTreeMap<Step, BTreeSet<String>>;

/// Reads every crate once and follows each step's `run` through those it depends on.
///
/// # Errors
/// When a source file is not Rust or a manifest is not TOML.
pub fn of_every_step(repository: &Repository) -> Result<Called> {
    let mut read = BTreeMap::new();
    let mut called = Called::new();
    for step in repository.steps() {
        let reached = reached(repository, &step)?;
        for folder in &reached {
            if !read.contains_key(folder) {
                read.insert(folder.clone(), Crate::read(repository, folder)?);
            }
        }
        let crates = reached
            .iter()
            .map(|folder| (folder.as_str(), &read[folder]))
            .collect();
        let operations = follow(&step, &crates);
        called.insert(step, operations);
    }
    Ok(called)
}

impl Crate {
    fn read(repository: &Repository, folder: &str) -> Result<Crate> {
        let mut read = Crate::default();
        for (path, text) in repository.below(&format!("functions/{folder}/src/")) {
            if path.ends_with("/tests.rs") || path.ends_with("/main.rs") {
                continue;
            }
            let file = syn::parse_file(text).with_context(|| path.to_owned())?;
            let file_name = path.rsplit('/').next().unwrap_or_default();
            let mut reader = Reader {
                folder,
                file: file_name.trim_end_matches(".rs"),
                owner: None,
                into: &mut read,
            };
            reader.visit_file(&file);
        }
        Ok(read)
    }
}

/// The operations in all bodies that the step's `run` reaches.
fn follow(step: &Step, crates: &BTreeMap<&str, &Crate>) -> BTreeSet<String> {
    let mut named: BTreeMap<&str, Vec<&Function>> = BTreeMap::new();
    for function in crates.values().flat_map(|read| read.bodies.keys()) {
        named.entry(&function.name).or_default().push(function);
    }
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let start = Function {
        home: step.name.clone(),
        file: "lib".to_owned(),
        owner: None,
        name: "run".to_owned(),
    };
    let mut open = vec![&start];
    while let Some(function) = open.pop() {
        let Function {
            home, file, owner, ..
        } = function;
        let Some(read) = crates.get(home.as_str()) else {
            continue;
        };
        let Some(body) = read.bodies.get(function) else {
            continue;
        };
        if !seen.insert(function) {
            continue;
        }
        found.extend(body.operations.iter().cloned());
        for Name {
            name,
            before,
            called,
        } in &body.names
        {
            let imported = *called && read.imports.contains(name);
            let candidates = named.get(name.as_str()).into_iter().flatten();
            open.extend(candidates.filter(|it| match before {
                Before::Dot => it.home == *home && read.bodies[**it].is_method,
                Before::Segment(segment) if segment == "Self" => {
                    it.home == *home && it.owner == *owner
                }
                Before::Segment(segment) if segment.starts_with(char::is_uppercase) => {
                    it.owner.as_ref() == Some(segment)
                }
                Before::Segment(segment) => {
                    it.home == segment.replace('_', "-") || it.file == *segment
                }
                Before::Nothing => {
                    it.owner.is_none() && ((it.home == *home && it.file == *file) || imported)
                }
            }));
        }
    }
    found
}

/// The folders of the step and of its dependencies.
fn reached(repository: &Repository, step: &Step) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![step.name.clone()];
    while let Some(name) = open.pop() {
        let path = format!("functions/{name}/Cargo.toml");
        let Some(text) = repository.file(&path) else {
            continue;
        };
        if found.insert(name) {
            let manifest: toml::Table = text.parse().with_context(|| path)?;
            let dependencies = manifest
                .get("dependencies")
                .and_then(|table| table.as_table());
            open.extend(
                dependencies
                    .into_iter()
                    .flat_map(|table| table.keys().cloned()),
            );
        }
    }
    Ok(found)
}

/// Collects the bodies of a file's functions, except for tests.
struct Reader<'a> {
    folder: &'a str,
    file: &'a str,
    /// The type of the `impl` that is being read.
    owner: Option<String>,
    into: &'a mut Crate,
}

impl Reader<'_> {
    fn take(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let function = Function {
            home: self.folder.to_owned(),
            file: self.file.to_owned(),
            owner: self.owner.clone(),
            name: signature.ident.to_string(),
        };
        let entry = self.into.bodies.entry(function).or_default();
        entry.is_method |= signature.receiver().is_some();
        read(body.to_token_stream(), entry);
        if self.folder == WITHOUT_SECRETS {
            let is_of_secrets = |it: &String| it.starts_with("secretsmanager:");
            entry.operations.retain(|it| !is_of_secrets(it));
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !item
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("cfg"))
        {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_use_name(&mut self, item: &'ast syn::UseName) {
        self.into.imports.insert(item.ident.to_string());
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.take(&item.sig, &item.block);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let syn::Type::Path(owner) = &*item.self_ty {
            self.owner = owner.path.segments.last().map(|it| it.ident.to_string());
        }
        syn::visit::visit_item_impl(self, item);
        self.owner = None;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.take(&item.sig, &item.block);
    }
}

fn read(tokens: TokenStream, body: &mut Body) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => read(group.stream(), body),
            TokenTree::Ident(name) => {
                let name = name.to_string();
                let method = is(&tokens, index.wrapping_sub(1), ".");
                let called = match tokens.get(index + 1) {
                    Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Parenthesis,
                    _ => false,
                };
                let is_before = |client: &str| index >= 2 && is(&tokens, index - 2, client);
                let client = CLIENTS.iter().find(|(client, _)| is_before(client));
                if let (true, true, Some((_, service))) = (method, called, client) {
                    let operation = name.to_upper_camel_case();
                    body.operations.insert(format!("{service}:{operation}"));
                    continue;
                }
                let path = index >= 3 && is(&tokens, index - 1, ":") && is(&tokens, index - 2, ":");
                let before = if method {
                    Before::Dot
                } else if path {
                    Before::Segment(tokens[index - 3].to_string())
                } else {
                    Before::Nothing
                };
                body.names.insert(Name {
                    name,
                    before,
                    called,
                });
            }
            _ => {}
        }
    }
}

fn is(tokens: &[TokenTree], index: usize, text: &str) -> bool {
    tokens
        .get(index)
        .is_some_and(|token| token.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(main: &str, library: &str) -> Vec<String> {
        let repository = Repository::read()
            .unwrap()
            .without("functions/")
            .with("functions/lifecycle/Cargo.toml", "[package]")
            .with("functions/lifecycle/src/routing.rs", library)
            .with(
                "functions/a-step/Cargo.toml",
                "[dependencies]\nlifecycle.workspace = true",
            )
            .with("functions/a-step/src/lib.rs", main);
        let step = repository.steps().remove(0);
        let mut called = of_every_step(&repository).unwrap();
        called.remove(&step).unwrap().into_iter().collect()
    }

    #[test]
    fn what_run_reaches_is_called_and_what_only_undo_reaches_is_not() {
        let main = "
            pub async fn run() { one().await; routing::rules(elb).await?; }
            async fn one() { list.find(x); elb.create_rule().set_tags(Some(tags())).send().await }
            pub async fn undo() { elb.delete_rule().rule_arn(arn).send().await }";
        let library = "
            pub async fn rules() { loop { elb.describe_rules().send().await } }
            pub async fn find() { elb.describe_listeners().send().await }";
        assert_eq!(
            calls(main, library),
            [
                "elasticloadbalancing:CreateRule",
                "elasticloadbalancing:DescribeRules"
            ]
        );
    }

    #[test]
    fn calls_inside_macros_closures_and_methods_count() {
        let main = "
            pub async fn run() { try_join!(self.one(), async move { list.map(two) }) }
            impl A { async fn one(&self) { self.elb.add_tags().send().await; B::three() } }
            impl B { fn three() { sfn.list_executions() } }
            impl C { fn three() { ecr.describe_images() } }
            fn two() { ecs.list_tasks().cluster(c).customize().config_override(o).send() }";
        assert_eq!(
            calls(main, ""),
            [
                "ecs:ListTasks",
                "elasticloadbalancing:AddTags",
                "states:ListExecutions"
            ]
        );
    }

    #[test]
    fn accessors_and_tests_do_not_count() {
        let main = "
            pub async fn run() { task.stop_code().map(x) }
            #[cfg(test)] mod tests { fn run() { elb.create_rule().send() } }";
        assert!(calls(main, "").is_empty());
    }
}
