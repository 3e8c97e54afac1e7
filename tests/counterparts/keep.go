// Keep runs one program for as long as its own standard input is open, and not a moment longer: it ends the program and everything
// that the program started when the input ends, when it is told to, and when it is itself killed.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
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
	// A process group of its own: what the program forks is ended with it.
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
	syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
	if why != "" {
		fmt.Fprintln(os.Stderr, "keep:", why)
		os.Exit(1)
	}
}
