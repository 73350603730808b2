//! What builds run in hooks: package managers and whatever else wants to write into its release.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use crate::support::{House, Setup, is_root};

const PACKAGE: &str = r#"{
  "name": "blog", "version": "1.0.0", "private": true,
  "dependencies": { "stamp": "file:tools/stamp", "packed": "file:tools/packed.tgz" },
  "scripts": { "build": "stamp built.txt && packed >> built.txt" }
}"#;

const LOCK: &str = r#"{
  "name": "blog", "version": "1.0.0", "lockfileVersion": 3, "requires": true,
  "packages": {
    "": { "name": "blog", "version": "1.0.0",
          "dependencies": { "stamp": "file:tools/stamp", "packed": "file:tools/packed.tgz" } },
    "node_modules/packed": { "version": "1.0.0", "resolved": "file:tools/packed.tgz", "bin": { "packed": "cli.js" } },
    "node_modules/stamp": { "resolved": "tools/stamp", "link": true },
    "tools/stamp": { "version": "1.0.0", "bin": { "stamp": "cli.js" } }
  }
}"#;

/// npm without a network and without our own home; as root, for a user that can write nowhere else.
fn setup() -> String {
    let people =
        "owner = \"www-data\"\ngroup = \"daemon\"\nrun_as = \"daemon\"\nenv = { npm_config_offline = \"true\" }";
    let alone = "env = { npm_config_offline = \"true\", HOME = \"{house}\" }";
    if is_root() { people.to_owned() } else { alone.to_owned() }
}

fn write_npm_project(house: &House) {
    house.origin.write("package.json", PACKAGE);
    house.origin.write("package-lock.json", LOCK);
    house
        .origin
        .write("tools/stamp/package.json", r#"{ "name": "stamp", "version": "1.0.0", "bin": { "stamp": "cli.js" } }"#);
    let stamp = "#!/usr/bin/env node\nrequire('fs').writeFileSync(process.argv[2], 'stamped\\n');\n";
    house.origin.write("tools/stamp/cli.js", stamp);
    house.origin.make_executable("tools/stamp/cli.js");
    // A package as a registry would give it.
    house
        .origin
        .write("package/package.json", r#"{ "name": "packed", "version": "1.0.0", "bin": { "packed": "cli.js" } }"#);
    house.origin.write("package/cli.js", "#!/usr/bin/env node\nconsole.log('packed');\n");
    house.origin.make_executable("package/cli.js");
    super::peers::run(
        "tar",
        &[
            "-C",
            &house.origin.work().to_string_lossy(),
            "-czf",
            &house.origin.work().join("tools/packed.tgz").to_string_lossy(),
            "package",
        ],
    );
    std::fs::remove_dir_all(house.origin.work().join("package")).expect("a removal");
}

#[test]
#[ignore = "needs node and npm: tests/run.sh brings them"]
fn npm_installs_and_builds_in_a_release_with_colons_in_its_name() {
    let house = House::new();
    write_npm_project(&house);
    house.origin.write(".landfall/after.pull", "npm ci && stamp called.txt");
    house.origin.write(".landfall/before.deploy", "npm run build");
    house.origin.commit(&[("index.html", "one")]);
    house.configure(&Setup { site: &setup(), ..Setup::default() });
    house.deploy().expect(0);
    assert!(house.releases()[0].contains(':'));
    assert_eq!(
        (house.live("built.txt").as_str(), house.live("called.txt").as_str()),
        ("stamped\npacked\n", "stamped\n")
    );
    let mode = |path: &str| {
        let metadata = house.root.join("current").join(path).metadata().expect(path);
        (metadata.permissions().mode() & 0o7777, metadata.uid())
    };
    let owner = house.root.join("current/index.html").metadata().expect("a file").uid();
    let expected = [("built.txt", 0o664), ("node_modules/.bin/packed", 0o775), ("node_modules", 0o2775)];
    for (path, right) in expected {
        assert_eq!(mode(path), (right, owner), "{path}");
    }
    // The same once more, from what npm has kept at home.
    house.origin.commit(&[("index.html", "two")]);
    house.deploy().expect(0);
    assert_eq!(house.live("built.txt"), "stamped\npacked\n");
}

#[test]
#[ignore = "needs node and npm: tests/run.sh brings them"]
fn a_build_that_fails_in_npm_fails_the_deployment_and_leaves_nothing() {
    let house = House::new();
    write_npm_project(&house);
    house.origin.write(".landfall/after.pull", "npm ci");
    house.origin.write(".landfall/before.deploy", "npm run no-such-script");
    house.origin.commit(&[("index.html", "one")]);
    house.configure(&Setup { site: &setup(), ..Setup::default() });
    let ran = house.deploy().expect(1);
    assert!(ran.stderr.contains("before.deploy") && ran.stderr.contains("status 1"), "{}", ran.stderr);
    assert!(house.log(1).contains("no-such-script"));
    assert_eq!((house.current(), house.releases().len()), (None, 0));
}

#[test]
fn a_fifo_that_a_hook_makes_is_part_of_the_release_and_nobody_waits_for_it() {
    let house = House::new();
    house.origin.write(".landfall/after.pull", "mkfifo -m 600 pipe");
    house.origin.commit(&[("index.html", "one")]);
    house.configure(&Setup { site: &setup(), ..Setup::default() });
    house.deploy().expect(0);
    let pipe = house.root.join("current/pipe").symlink_metadata().expect("a fifo");
    assert!(pipe.file_type().is_fifo());
    assert_eq!(pipe.permissions().mode() & 0o7777, 0o600, "it is left as it is");
    let log = house.log(1);
    assert!(log.contains("1 sockets, fifos or devices left as they are"), "{log}");
}
