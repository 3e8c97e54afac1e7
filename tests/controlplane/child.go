package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
)

// One program of the control plane. It can be started again with the same arguments after it has stopped.
type child struct {
	name      string
	path      string
	args      []string
	logPath   string
	isHealthy func() error

	process *os.Process
	gone    chan struct{} // closed when the process has been reaped
	status  string        // how it ended; valid once gone is closed
	logFrom int64         // where this run's log begins
	wanted  atomic.Bool   // false once we asked it to stop
}

func (c *child) running() bool {
	if c.process == nil {
		return false
	}
	select {
	case <-c.gone:
		return false
	default:
		return true
	}
}

// Starts the program. Only for the main thread: see init.
func (c *child) start() error {
	if c.running() {
		return fmt.Errorf("%s is running already (pid %d)", c.name, c.process.Pid)
	}
	log, err := os.OpenFile(c.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", c.name, err)
	}
	defer log.Close()
	if c.logFrom, err = log.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("opening the log of %s: %w", c.name, err)
	}
	command := exec.Command(c.path, c.args...)
	command.Dir = filepath.Dir(c.logPath)
	command.Env = environment()
	command.Stdout, command.Stderr = log, log
	// A process group of its own: Ctrl-C reaches the supervisor, which stops its children itself.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", c.name, err)
	}
	gone := make(chan struct{})
	c.process, c.gone = command.Process, gone
	c.wanted.Store(true)
	go func() {
		command.Wait()
		c.status = command.ProcessState.String()
		if c.wanted.Load() {
			fmt.Fprintf(os.Stderr, "controlplane: %s ended by itself: %s; its log: %s\n", c.name, c.status, c.logPath)
		}
		close(gone)
	}()
	return nil
}

// Kills the program, paused or not, and returns when it is gone. Fine if it is not running.
func (c *child) stop() {
	if c.process == nil {
		return
	}
	c.wanted.Store(false)
	c.process.Kill()
	<-c.gone
}

func (c *child) signal(signal syscall.Signal) error {
	if !c.running() {
		return fmt.Errorf("%s is not running", c.name)
	}
	return c.process.Signal(signal)
}

// The last lines that this run wrote to its log.
func (c *child) lastWords(lines int) string {
	content, err := os.ReadFile(c.logPath)
	if err != nil {
		return err.Error()
	}
	content = bytes.TrimRight(content[min(c.logFrom, int64(len(content))):], "\n")
	if len(content) == 0 {
		return "(it wrote nothing)"
	}
	all := bytes.Split(content, []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// What a program said when it died before it was healthy.
type diedEarly struct{ name, status, log, lastWords string }

func (e diedEarly) Error() string {
	return fmt.Sprintf("%s ended before it was ready: %s; the end of %s:\n%s", e.name, e.status, e.log, e.lastWords)
}

func (e diedEarly) lostItsPort() bool { return strings.Contains(e.lastWords, "address already in use") }

// The caller's environment without what would change the programs' settings behind our back.
func environment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "ETCD_") && !strings.HasPrefix(entry, "KUBE") {
			kept = append(kept, entry)
		}
	}
	return kept
}
