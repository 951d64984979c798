package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// copyCluster makes the directory's data a copy of a running server's. A server on it then follows that server as a hot
// standby. It does nothing if there is data already. It does not need pg_basebackup, which not every package has.
func (f *directory) copyCluster(ctx context.Context, of *Server) error {
	if major, err := f.major(); err != nil || major != 0 {
		return err
	}
	if err := os.RemoveAll(f.unfinished()); err != nil {
		return err
	}
	if err := os.WriteFile(f.password(), []byte(of.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := f.backUp(ctx, of); err != nil {
		return fmt.Errorf("copy the data of the server on port %d: %w", of.port, err)
	}
	return os.Rename(f.unfinished(), f.data())
}

// backUp copies the files while the server works. The WAL that it writes meanwhile makes them consistent.
func (f *directory) backUp(ctx context.Context, of *Server) error {
	start, stop := "pg_backup_start('standby', true)", "pg_backup_stop(false)"
	if of.programs.version.major < 15 {
		start, stop = "pg_start_backup('standby', true, false)", "pg_stop_backup(false, false)"
	}
	conn, err := of.Connect(ctx, "postgres") // the backup ends with this session
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// The slot keeps the WAL until the session ends.
	if _, err := conn.Exec(ctx, "SELECT pg_create_physical_replication_slot('ddtb_' || pg_backend_pid(), true, true)"); err != nil {
		return err
	}
	var first, last, label string
	if err := conn.QueryRow(ctx, "SELECT pg_walfile_name("+start+")").Scan(&first); err != nil {
		return err
	}
	from := of.directory.data()
	if err := f.copyFiles(from, func(path string) bool { return !strings.HasPrefix(path, wal) }); err != nil {
		return err
	}
	if err := conn.QueryRow(ctx, "SELECT pg_walfile_name(lsn), labelfile FROM "+stop).Scan(&last, &label); err != nil {
		return err
	}
	needed := func(path string) bool {
		name, is := strings.CutPrefix(path, wal)
		return is && (name >= first && name <= last || strings.HasSuffix(name, ".history"))
	}
	if err := f.copyFiles(from, needed); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"backup_label": label, "standby.signal": "",
		"postgresql.auto.conf": fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=%s password=%s'\n", of.port, Superuser, of.password),
	} {
		if err := f.put(name, strings.NewReader(text), os.O_APPEND); err != nil {
			return err
		}
	}
	return nil
}

const wal = "pg_wal/"

// Files that belong to the running server alone, and directories of which only the names are copied.
var (
	ofProcess = []string{"postmaster.pid", "postmaster.opts", "pg_internal.init", "backup_label", "backup_manifest"}
	emptied   = []string{"pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"}
)

// copyFiles copies all directories, and those files that are wanted, by their path below the data directory.
func (f *directory) copyFiles(from string, want func(path string) bool) error {
	data, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer func() { _ = data.Close() }()
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return unlessGone(err)
		}
		path, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		path = filepath.ToSlash(path)
		top, _, below := strings.Cut(path, "/")
		switch {
		case below && slices.Contains(emptied, top), slices.Contains(ofProcess, d.Name()), strings.HasPrefix(d.Name(), "pgsql_tmp"):
			return nil
		case d.IsDir():
			return f.putDir(path)
		case !d.Type().IsRegular() || !want(path):
			return nil
		}
		file, err := data.Open(path)
		if err != nil {
			return unlessGone(err)
		}
		defer func() { _ = file.Close() }()
		return f.put(path, file, os.O_TRUNC)
	})
}

// unlessGone ignores that the server deleted a file meanwhile.
func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (f *directory) putDir(path string) error {
	name := filepath.Join(f.unfinished(), path)
	if err := os.MkdirAll(name, 0o700); err != nil {
		return err
	}
	return f.acct.own(name)
}

func (f *directory) put(path string, text io.Reader, mode int) error {
	name := filepath.Join(f.unfinished(), path)
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|mode, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, text)
	return errors.Join(err, file.Close(), f.acct.own(name))
}
