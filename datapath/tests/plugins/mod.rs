//! Small plugins, written as text, and files of them.
#![allow(dead_code, unreachable_pub, reason = "each test file takes what it needs")]

use std::fs;
use std::path::PathBuf;

/// A plugin with a table of so many rows, these further functions, and the slot that it names; the fallback has what is
/// not usable. It takes options, and has facts of 8 servers at 8192.
pub fn text(rows: u8, others: &str, schedule: &str) -> String {
    format!(
        r#"(module (memory (export "memory") 1 4)
          (data (i32.const 1024) "XVS1\01\00\00\00\00\00\00\00\00\00\00\00\{rows:02x}\00\00\00\20\00\00\00")
          (data (i32.const 4096) "\40\00\00\00")
          (data (i32.const 8192) "XVS1\08\00\00\00\c0\00\00\00\00\00\00\00")
          (func (export "xvs_abi_version") (result i32) i32.const 1)
          (func (export "xvs_table") (result i32) i32.const 1024)
          (func (export "xvs_io") (result i32) i32.const 64)
          (func (export "xvs_config") (result i32) i32.const 4096)
          (func (export "xvs_facts") (result i32) i32.const 8192)
          {others}
          (func (export "xvs_schedule") (result i32) (local $slot i32)
            {schedule} local.set $slot
            (if (i32.ge_u (local.get $slot) (i32.load (i32.const 1036))) (then (return (i32.const -2))))
            (if (i32.eqz (i32.and (i32.const 1)
                (i32.load (i32.add (i32.const 1068) (i32.shl (local.get $slot) (i32.const 5))))))
              (then (return (i32.const -2))))
            local.get $slot))"#
    )
}

/// A directory of one test's own, gone when the test is over.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("xvs-plugins-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }

    /// Writes a plugin; gives its path.
    pub fn plugin(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(format!("{name}.wasm"));
        fs::write(&path, wat::parse_str(text).expect("a module")).expect("a file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
