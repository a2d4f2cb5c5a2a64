//! The archive format that the kernel unpacks at boot: cpio, "new ASCII" without checksums.

/// What a file may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Read.
    Data,
    /// Read and run.
    Program,
}

/// An archive under construction. Folders must be added before what is in them.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
const FILE: u32 = 0o100_000;

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, (0, 0), &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: Mode, contents: &[u8]) {
        let permissions = match mode {
            Mode::Data => 0o644,
            Mode::Program => 0o755,
        };
        self.entry(path, FILE | permissions, (0, 0), contents);
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    /// The archive's bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        let links = 1;
        // Inode, mode, user, group, links, time, length, device, device of a device file, name, check: each
        // eight hexadecimal digits. All belongs to root, and is of the same second: archives of the same
        // files are the same.
        let fields: [usize; 13] = [
            self.entries as usize,
            mode as usize,
            0,
            0,
            links,
            0,
            contents.len(),
            0,
            0,
            device.0 as usize,
            device.1 as usize,
            path.len() + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        let len = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(len, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_laid_out_as_the_format_has_it() {
        let mut archive = Archive::default();
        archive.file("init", Mode::Program, b"hello");
        let bytes = archive.finish();
        assert_eq!(
            &bytes[..110],
            b"070701\
              00000001000081ED00000000000000000000000100000000\
              000000050000000000000000000000000000000000000005\
              00000000"
        );
        assert_eq!(&bytes[110..124], b"init\0\0hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
    }

    #[test]
    fn everything_starts_at_a_multiple_of_four() {
        let mut archive = Archive::default();
        for name in ["a", "bc", "def", "ghij", "klmno"] {
            archive.file(name, Mode::Data, name.as_bytes());
        }
        archive.character_device("console", 5, 1);
        archive.folder("proc");
        let bytes = archive.finish();
        let starts = bytes
            .windows(6)
            .enumerate()
            .filter(|(_, window)| window == b"070701");
        let starts: Vec<usize> = starts.map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 8);
        assert!(starts.iter().all(|at| at % 4 == 0));
    }
}
