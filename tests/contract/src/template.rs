//! A CloudFormation template, with its short forms (`!Sub`, `!GetAtt`) replaced by the long ones.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Value, json};

/// A template as JSON, with the line of each part in the text.
#[derive(Debug, Clone)]
pub struct Template {
    /// The template with long forms only: `!Ref A` is `{"Ref": "A"}`.
    pub value: Value,
    lines: Vec<String>,
    /// From JSON pointers to line numbers, counted from 1.
    line_of: HashMap<String, usize>,
}

/// A statement of any policy in the template.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The logical name of the resource that contains it.
    pub resource: String,
    /// Its line, counted from 1.
    pub line: usize,
    /// The statement itself.
    pub value: Value,
}

impl Statement {
    /// Its actions, whether the text has one or a list.
    pub fn actions(&self) -> Vec<String> {
        strings(&self.value["Action"])
    }

    /// Whether it allows its actions; it denies them otherwise.
    pub fn allows(&self) -> bool {
        self.value["Effect"] == "Allow"
    }
}

/// A string, or the strings of a list.
pub fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When the text is not a single YAML document whose keys are text.
    pub fn parse(text: &str) -> Result<Self> {
        let documents = MarkedYaml::load_from_str(text)?;
        let [document] = &documents[..] else {
            bail!("{} documents instead of one", documents.len());
        };
        let mut line_of = HashMap::new();
        let value = long_form(document, "", &mut line_of)?;
        Ok(Template {
            value,
            lines: text.lines().map(str::to_owned).collect(),
            line_of,
        })
    }

    /// A section of the template, such as `Parameters`; empty when there is none.
    pub fn section(&self, name: &str) -> Map<String, Value> {
        self.value[name].as_object().cloned().unwrap_or_default()
    }

    /// The resources of a type.
    pub fn resources_of(&self, kind: &str) -> Vec<(String, Value)> {
        self.section("Resources")
            .into_iter()
            .filter(|(_, resource)| resource["Type"] == kind)
            .collect()
    }

    /// The properties of a resource; null when there is no such resource.
    pub fn properties(&self, resource: &str) -> &Value {
        &self.value["Resources"][resource]["Properties"]
    }

    /// Every statement of every policy.
    pub fn statements(&self) -> Vec<Statement> {
        let mut found = Vec::new();
        for (name, resource) in self.section("Resources") {
            let pointer = format!("/Resources/{}", escaped(&name));
            self.collect_statements(&name, &resource, &pointer, &mut found);
        }
        found
    }

    fn collect_statements(
        &self,
        resource: &str,
        value: &Value,
        pointer: &str,
        found: &mut Vec<Statement>,
    ) {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.collect_statements(resource, item, &format!("{pointer}/{index}"), found);
                }
            }
            Value::Object(fields) => {
                if fields.contains_key("Effect") && fields.contains_key("Action") {
                    found.push(Statement {
                        resource: resource.to_owned(),
                        line: self.line_of.get(pointer).copied().unwrap_or_default(),
                        value: value.clone(),
                    });
                }
                for (name, field) in fields {
                    let pointer = format!("{pointer}/{}", escaped(name));
                    self.collect_statements(resource, field, &pointer, found);
                }
            }
            _ => {}
        }
    }

    /// The comment lines right above a line, without `#`, the topmost first.
    pub fn comment_above(&self, line: usize) -> Vec<&str> {
        let above = &self.lines[..line.saturating_sub(1).min(self.lines.len())];
        let mut comment: Vec<_> = above
            .iter()
            .rev()
            .map_while(|line| line.trim_start().strip_prefix('#').map(str::trim))
            .collect();
        comment.reverse();
        comment
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn long_form(
    node: &MarkedYaml<'_>,
    pointer: &str,
    line_of: &mut HashMap<String, usize>,
) -> Result<Value> {
    line_of.insert(pointer.to_owned(), node.span.start.line());
    Ok(match &node.data {
        YamlData::Value(Scalar::Null) => Value::Null,
        YamlData::Value(Scalar::Boolean(value)) => json!(value),
        YamlData::Value(Scalar::Integer(value)) => json!(value),
        YamlData::Value(Scalar::FloatingPoint(value)) => json!(value.into_inner()),
        YamlData::Value(Scalar::String(value)) => json!(value),
        YamlData::Sequence(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| long_form(item, &format!("{pointer}/{index}"), line_of))
            .collect::<Result<_>>()?,
        YamlData::Mapping(fields) => {
            let mut object = Map::new();
            for (key, value) in fields {
                let key = key
                    .data
                    .as_str()
                    .with_context(|| format!("a key below {pointer} is not text"))?;
                let value = long_form(value, &format!("{pointer}/{}", escaped(key)), line_of)?;
                object.insert(key.to_owned(), value);
            }
            Value::Object(object)
        }
        YamlData::Tagged(tag, value) => {
            let value = long_form(value, pointer, line_of)?;
            match (tag.suffix.as_str(), value) {
                (name @ ("Ref" | "Condition"), value) => json!({name: value}),
                ("GetAtt", Value::String(path)) => {
                    let (resource, attribute) = path
                        .split_once('.')
                        .with_context(|| format!("!GetAtt {path} names no attribute"))?;
                    json!({"Fn::GetAtt": [resource, attribute]})
                }
                (name, value) => json!({format!("Fn::{name}"): value}),
            }
        }
        YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
            bail!("cannot read {pointer}")
        }
    })
}
