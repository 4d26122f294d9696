//! Lists in pages: `PageSize`, `Marker` and `NextMarker`.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeRules.html>

use std::ops::Range;

use quick_xml::{Reader, events::Event};

use crate::gateway::{answer::AwsError, operation::Params};

/// The largest page size, which is also the default.
const LARGEST_PAGE: usize = 400;

/// The XML element that holds the list, for operations whose answers have pages.
pub fn list_of(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "DescribeLoadBalancers" => "LoadBalancers",
        "DescribeListeners" => "Listeners",
        "DescribeRules" => "Rules",
        "DescribeTargetGroups" => "TargetGroups",
        _ => return None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    start: usize,
    size: usize,
}

impl Page {
    /// Reads size and marker.
    ///
    /// # Errors
    /// `ValidationError` if the size is not 1 to 400 or the marker was not made here.
    pub fn of(params: &Params) -> Result<Self, AwsError> {
        let size = match params.get("PageSize") {
            None => LARGEST_PAGE,
            Some(size) => size
                .parse()
                .ok()
                .filter(|size| (1..=LARGEST_PAGE).contains(size))
                .ok_or_else(|| {
                    AwsError::new(
                        "ValidationError",
                        format!(
                            "1 validation error detected: Value '{size}' at 'pageSize' failed to satisfy \
                             constraint: Member must have value between 1 and {LARGEST_PAGE}"
                        ),
                    )
                })?,
        };
        let start = match params.get("Marker") {
            None => 0,
            Some(marker) => marker
                .strip_prefix("after-")
                .and_then(|start| start.parse().ok())
                .ok_or_else(|| {
                    AwsError::new("ValidationError", format!("Invalid marker '{marker}'"))
                })?,
        };
        Ok(Self { start, size })
    }

    /// Cuts the page out of an answer that contains the whole list.
    pub fn cut(self, xml: &str, list: &str) -> String {
        let Some((inside, members)) = members(xml, list) else {
            return xml.to_owned();
        };
        let start = self.start.min(members.len());
        let end = (start + self.size).min(members.len());
        let page: String = members[start..end]
            .iter()
            .map(|member| &xml[member.clone()])
            .collect();
        let marker = if end < members.len() {
            format!("<NextMarker>after-{end}</NextMarker>")
        } else {
            String::new()
        };
        let close = format!("</{list}>");
        let after = &xml[inside.end + close.len()..];
        format!("{}{page}{close}{marker}{after}", &xml[..inside.start])
    }
}

/// The byte ranges of a list's content and of each of its members.
fn members(xml: &str, list: &str) -> Option<(Range<usize>, Vec<Range<usize>>)> {
    let mut reader = Reader::from_str(xml);
    let position =
        |reader: &Reader<&[u8]>| usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
    let mut members = Vec::new();
    // `inside` is set when the start tag of the list is found: the position after it.
    let (mut inside, mut depth, mut member_start) = (None, 0_usize, 0);
    loop {
        let before = position(&reader);
        match reader.read_event().ok()? {
            Event::Start(tag) if inside.is_none() => {
                inside = (tag.name().as_ref() == list).then(|| position(&reader));
            }
            Event::Start(_) => {
                if depth == 0 {
                    member_start = before;
                }
                depth += 1;
            }
            Event::End(_) if inside.is_some() => {
                if depth == 0 {
                    return Some((inside?..before, members));
                }
                depth -= 1;
                if depth == 0 {
                    members.push(member_start..position(&reader));
                }
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "<R><Rules><member><A><member>1</member></A></member><member>2</member>\
                         <member>3</member></Rules></R>";

    fn page(size: &str, marker: Option<&str>) -> Result<String, AwsError> {
        let params = [("PageSize", size)]
            .into_iter()
            .chain(marker.map(|m| ("Marker", m)));
        Ok(Page::of(&params.collect())?.cut(WHOLE, "Rules"))
    }

    #[test]
    fn pages_follow_one_another_to_the_end() {
        let first = page("2", None).unwrap();
        assert_eq!(
            first,
            "<R><Rules><member><A><member>1</member></A></member><member>2</member></Rules>\
             <NextMarker>after-2</NextMarker></R>"
        );
        let last = page("2", Some("after-2")).unwrap();
        assert_eq!(last, "<R><Rules><member>3</member></Rules></R>");
    }

    #[test]
    fn a_list_that_fits_is_left_as_it_is() {
        assert_eq!(page("400", None).unwrap(), WHOLE);
        assert_eq!(
            Page::of(&Params::default()).unwrap().cut(WHOLE, "Rules"),
            WHOLE
        );
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(page("0", None).unwrap_err().code, "ValidationError");
        assert_eq!(page("401", None).unwrap_err().code, "ValidationError");
        assert_eq!(page("1", Some("x")).unwrap_err().code, "ValidationError");
    }
}
