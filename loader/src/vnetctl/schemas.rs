//! What `-o json` prints, as JSON schemas: `docs/schema`.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};

/// By the command whose answer it is.
pub fn schemas() -> BTreeMap<&'static str, Schema> {
    BTreeMap::from([
        ("classes", of::<Vec<rpc::Classified>>()),
        ("doctor", of::<super::doctor::Report>()),
        ("endpoints", of::<Vec<super::endpoints::EndpointView>>()),
        ("explain", of::<Vec<super::explain::Explanation>>()),
        ("flows", of::<super::flows::Flows>()),
        ("ipam", of::<Vec<crate::leaks::Holding>>()),
        ("ipam-gc", of::<Vec<crate::ipam::Freed>>()),
        ("monitor", of::<crate::events::Line>()),
        ("selftest", of::<super::selftest::Tested>()),
        ("snat", of::<super::snat::Bindings>()),
        ("snat-top", of::<super::snat::RemoteEnds>()),
        ("status", of::<rpc::Status>()),
        ("status-brief", of::<super::status::Brief>()),
        ("sysdump", of::<super::sysdump::Dump>()),
        ("trace", of::<crate::trace::Trace>()),
        ("uninstall", of::<super::uninstall::Uninstalled>()),
        ("validate", of::<Vec<netconf::conflist::Finding>>()),
    ])
}

/// Of what is written, not of what would be read.
fn of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::default().for_serialize();
    let settings = settings.with_transform(RecursiveTransform(close));
    settings.into_generator().into_root_schema_for::<T>()
}

/// An object has the fields that are named, and no others.
fn close(schema: &mut Schema) {
    let is_closed = schema.get("additionalProperties").is_some();
    let is_open = ["oneOf", "anyOf", "allOf"]
        .iter()
        .any(|more| schema.get(*more).is_some());
    if schema.get("properties").is_some() && !is_closed && !is_open {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
}
