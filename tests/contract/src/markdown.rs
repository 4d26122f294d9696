//! Tables, diagrams, links and code of a Markdown document.

use std::collections::BTreeMap;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A table and the headings above it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// The text of the nearest second-level heading above, without its code marks.
    pub section: String,
    /// The column names.
    pub header: Vec<String>,
    /// The cells as text.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The cells of the first column.
    pub fn first_column(&self) -> Vec<&str> {
        self.rows
            .iter()
            .filter_map(|row| row.first().map(String::as_str))
            .collect()
    }

    /// The cells of the column with that name; none when there is no such column.
    pub fn column(&self, name: &str) -> Option<Vec<&str>> {
        let index = self.header.iter().position(|header| header == name)?;
        Some(
            self.rows
                .iter()
                .filter_map(|row| row.get(index).map(String::as_str))
                .collect(),
        )
    }
}

/// A fenced block, such as a diagram.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Block {
    /// As [`Table::section`].
    pub section: String,
    /// The word after the opening fence.
    pub language: String,
    /// The text in the block.
    pub text: String,
}

/// The tables and the fenced blocks of a document.
pub fn read(text: &str) -> (Vec<Table>, Vec<Block>) {
    let (mut tables, mut blocks) = (Vec::new(), Vec::new());
    let (mut section, mut words) = (String::new(), String::new());
    let (mut table, mut row, mut block) = (Table::default(), Vec::new(), Block::default());
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. } | Tag::TableCell) => words.clear(),
            Event::End(TagEnd::Heading(pulldown_cmark::HeadingLevel::H2)) => {
                section = words.trim().to_owned();
            }
            Event::Start(Tag::Table(_)) => {
                table = Table {
                    section: section.clone(),
                    ..Table::default()
                };
            }
            Event::End(TagEnd::TableCell) => row.push(words.trim().to_owned()),
            Event::End(TagEnd::TableHead) => table.header = std::mem::take(&mut row),
            Event::End(TagEnd::TableRow) => table.rows.push(std::mem::take(&mut row)),
            Event::End(TagEnd::Table) => tables.push(std::mem::take(&mut table)),
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                words.clear();
                block = Block {
                    section: section.clone(),
                    language: language.to_string(),
                    ..Block::default()
                };
            }
            Event::End(TagEnd::CodeBlock) => {
                block.text = std::mem::take(&mut words);
                blocks.push(std::mem::take(&mut block));
            }
            Event::Text(text) | Event::Code(text) => words.push_str(&text),
            Event::SoftBreak | Event::HardBreak => words.push(' '),
            _ => {}
        }
    }
    (tables, blocks)
}

/// The links, headings and code of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct References {
    /// The destinations of its links.
    pub links: Vec<String>,
    /// The headings as GitHub spells them in a link, after the `#`.
    pub anchors: Vec<String>,
    /// Each code span and each fenced block, except for diagrams.
    pub code: Vec<String>,
}

/// The references of a document.
pub fn references(text: &str) -> References {
    let mut found = References::default();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let (mut heading, mut block): (Option<String>, Option<String>) = (None, None);
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default());
                let before = times.entry(anchor.clone()).or_default();
                found.anchors.push(match *before {
                    0 => anchor,
                    n => format!("{anchor}-{n}"),
                });
                *before += 1;
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                found.links.push(dest_url.to_string());
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                block = (kind != CodeBlockKind::Fenced("mermaid".into())).then(String::new);
            }
            Event::End(TagEnd::CodeBlock) => found.code.extend(block.take()),
            Event::Code(code) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&code);
                }
                found.code.push(code.to_string());
            }
            Event::Text(text) => {
                if let Some(taking) = block.as_mut().or(heading.as_mut()) {
                    taking.push_str(&text);
                }
            }
            _ => {}
        }
    }
    found
}

/// A heading as GitHub spells it in a link: lower case, hyphens for spaces, no other punctuation.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_links_headings_and_code() {
        let found = references(
            "# It's `{env}-deploy`\n[a](b.md#c)\n## Twice\n## Twice\n`make x`\n```sh\nmake y\n```\n```mermaid\nmake z\n```\n",
        );
        assert_eq!(found.links, ["b.md#c"]);
        assert_eq!(found.anchors, ["its-env-deploy", "twice", "twice-1"]);
        assert_eq!(found.code, ["{env}-deploy", "make x", "make y\n"]);
    }

    #[test]
    fn tables_and_diagrams_have_a_section() {
        let (tables, blocks) = read(
            "# T\n## `deploy`\n| State | Why |\n|---|---|\n| `A` | b |\n### More\n```mermaid\nA --> B\n```\n",
        );
        assert_eq!(tables[0].section, "deploy");
        assert_eq!(tables[0].first_column(), ["A"]);
        assert_eq!(tables[0].column("Why").unwrap(), ["b"]);
        assert_eq!(tables[0].column("How"), None);
        assert_eq!(blocks[0].section, "deploy");
        assert_eq!(
            (blocks[0].language.as_str(), blocks[0].text.as_str()),
            ("mermaid", "A --> B\n")
        );
    }
}
