package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const temporaryPrefix = "file360-controlplane-"

// The folder of one control plane, locked while it is in use.
type folder struct {
	path      string
	temporary bool
	lock      *os.File
}

// Opens the folder the caller named, or makes a temporary one that close removes.
func openFolder(named string) (*folder, error) {
	path, temporary := named, named == ""
	var err error
	if temporary {
		path, err = os.MkdirTemp("", temporaryPrefix)
	} else if path, err = filepath.Abs(named); err == nil {
		err = os.MkdirAll(path, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("making the folder: %w", err)
	}
	lock, err := lockFolder(path, os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("%s is in use by another control plane, or not writable: %w", path, err)
	}
	return &folder{path, temporary, lock}, nil
}

func (f *folder) join(parts ...string) string {
	return filepath.Join(append([]string{f.path}, parts...)...)
}

func (f *folder) close() {
	if f.temporary {
		if err := os.RemoveAll(f.path); err != nil {
			fmt.Fprintln(os.Stderr, "controlplane: removing its folder:", err)
		}
	}
	f.lock.Close()
}

func lockFolder(path string, flags int) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// Removes temporary folders whose supervisor was killed before it could. A young one may be about to be locked.
func sweepAbandonedFolders() {
	found, _ := filepath.Glob(filepath.Join(os.TempDir(), temporaryPrefix+"*"))
	for _, path := range found {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < 10*time.Second {
			continue
		}
		if lock, err := lockFolder(path, 0); err == nil {
			os.RemoveAll(path)
			lock.Close()
		}
	}
}
