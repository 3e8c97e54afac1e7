// Keep runs one program for as long as its own standard input is open, and not a moment longer: it ends the program and everything
// that the program started when the input ends, when it is told to, and when it is itself killed.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	// The kernel ties "die with your parent" to the thread that forked; the main thread lives as long as the process.
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: keep PROGRAM [ARGUMENT...]")
		os.Exit(2)
	}
	// What the program forks and leaves becomes our child, so that it is found and ended.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "keep:", err)
		os.Exit(1)
	}
	command := exec.Command(os.Args[1], os.Args[2:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "keep:", err)
		os.Exit(1)
	}

	over := make(chan string, 3)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		over <- ""
	}()
	go func() {
		command.Wait()
		over <- fmt.Sprintf("%s ended by itself: %s", os.Args[1], command.ProcessState)
	}()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-told
		over <- ""
	}()

	why := <-over
	endAll()
	if why != "" {
		fmt.Fprintln(os.Stderr, "keep:", why)
		os.Exit(1)
	}
}

// Kills every descendant, and those that they fork meanwhile, until there is none.
func endAll() {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		alive := descendants()
		if len(alive) == 0 {
			return
		}
		for _, pid := range alive {
			syscall.Kill(pid, syscall.SIGKILL)
			syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// The processes below this one that have not ended.
func descendants() []int {
	parents := map[int]int{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// The second field is the name, in parentheses, with whatever the program put there.
		text := string(content)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if len(fields) > 1 && fields[0] != "Z" {
			parents[pid], _ = strconv.Atoi(fields[1])
		}
	}
	var found []int
	for pid := range parents {
		for parent := parents[pid]; parent != 0; parent = parents[parent] {
			if parent == os.Getpid() {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}
