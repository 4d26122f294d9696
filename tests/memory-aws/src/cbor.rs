//! Smithy RPC v2 CBOR, which the SDK speaks to CloudWatch:
//! <https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html>.

use ciborium::Value as Cbor;
use serde_json::{Map, Value};

/// The tag of a point in time.
const EPOCH: u64 = 1;

/// A body as JSON. Points in time are numbers of seconds.
///
/// # Panics
/// When the body is not CBOR, or has something that JSON has not.
pub(crate) fn read(body: &[u8]) -> Value {
    let value: Cbor = ciborium::from_reader(body).expect("a CBOR body");
    to_json(value)
}

fn to_json(value: Cbor) -> Value {
    match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(value) => value.into(),
        Cbor::Integer(value) => i64::try_from(value).expect("64 bits").into(),
        Cbor::Float(value) => value.into(),
        Cbor::Text(value) => value.into(),
        Cbor::Tag(EPOCH, value) => to_json(*value),
        Cbor::Array(values) => values.into_iter().map(to_json).collect(),
        Cbor::Map(entries) => {
            let entry =
                |(key, value): (Cbor, Cbor)| (key.into_text().expect("a name"), to_json(value));
            Value::Object(entries.into_iter().map(entry).collect::<Map<_, _>>())
        }
        other => panic!("no JSON for {other:?}"),
    }
}

/// JSON as a body. The numbers in fields whose names end in `Timestamp` or `Timestamps` are points in time.
///
/// # Panics
/// Never: memory has room for it.
pub(crate) fn write(value: &Value) -> Vec<u8> {
    let mut body = Vec::new();
    ciborium::into_writer(&from_json(value, false), &mut body).expect("written to memory");
    body
}

fn from_json(value: &Value, is_time: bool) -> Cbor {
    match value {
        Value::Null => Cbor::Null,
        Value::Bool(value) => Cbor::Bool(*value),
        Value::Number(value) if is_time => {
            let seconds = value.as_f64().unwrap_or_default();
            Cbor::Tag(EPOCH, Box::new(Cbor::Float(seconds)))
        }
        Value::Number(value) => match value.as_i64() {
            Some(whole) => Cbor::Integer(whole.into()),
            None => Cbor::Float(value.as_f64().unwrap_or_default()),
        },
        Value::String(value) => Cbor::Text(value.clone()),
        Value::Array(values) => {
            Cbor::Array(values.iter().map(|it| from_json(it, is_time)).collect())
        }
        Value::Object(entries) => {
            let entry = |(name, value): (&String, &Value)| {
                (
                    Cbor::Text(name.clone()),
                    from_json(value, name.ends_with("Timestamp") || name == "Timestamps"),
                )
            };
            Cbor::Map(entries.iter().map(entry).collect())
        }
    }
}
