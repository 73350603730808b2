//! A deployment from the commit to the live release, as the command line does it.

use crate::support::House;

#[test]
fn a_first_deployment_makes_a_release_and_points_current_at_it() {
    let house = House::new();
    let commit = house.origin.commit(&[("index.html", "one")]);
    let ran = house.landfall(&["deploy", "blog", "--json"]).expect(0);
    assert_eq!(ran.json()["state"], "succeeded");
    assert_eq!(ran.json()["commit"], commit.as_str());
    assert_eq!(house.live("index.html"), "one");
    assert_eq!(house.releases().len(), 1);
    assert!(house.releases()[0].ends_with(&format!(".{}", &commit[..7])));
}
