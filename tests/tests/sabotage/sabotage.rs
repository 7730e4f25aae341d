//! One lab for each kind of victim.

use crate::scene::Scene;
use crate::{entries, files, kernel, nic, pins, programs};

#[test]
fn sabotage_of_programs_and_maps_is_mended_or_told() {
    Scene::new().unwrap().suffer(programs::ROWS);
}

#[test]
fn sabotage_of_entries_is_mended() {
    Scene::new().unwrap().suffer(entries::ROWS);
}

#[test]
fn sabotage_of_pins_is_mended_or_told() {
    Scene::new().unwrap().suffer(pins::ROWS);
}

#[test]
fn sabotage_of_routes_neighbours_rules_and_settings_is_mended_or_told() {
    Scene::with_tunnel().unwrap().suffer(kernel::ROWS);
}

#[test]
fn sabotage_of_the_nic_is_followed_or_told() {
    Scene::new().unwrap().suffer(nic::ROWS);
}

#[test]
fn sabotage_of_files_and_sockets_is_mended_or_told() {
    Scene::new().unwrap().suffer(files::ROWS);
}
