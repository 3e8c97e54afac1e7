// Controlplane runs a real Kubernetes control plane on loopback for tests and the demo: etcd, kube-apiserver and
// kube-controller-manager, with keys and ports of their own. README.md holds the protocol it speaks on stdin and stdout.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: controlplane up --bin DIR [flags]

Starts etcd, kube-apiserver and kube-controller-manager on 127.0.0.1, prints one JSON line when they are ready,
then answers commands from stdin, one JSON line each:
  stop|start|restart|pause|resume NAME, pids, shutdown
It runs until shutdown, end of stdin, SIGINT or SIGTERM: keep stdin open.

`

func init() {
	// The kernel ties "die with your parent" to the thread that forked. The main thread lives as long as the process,
	// so every child is started from it: main keeps this thread, and only main starts children.
	runtime.LockOSThread()
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	settings, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	// A caller that stopped reading must not kill us by signal: the folder would stay behind.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, endOfInput := context.WithCancelCause(ctx)
	commands := readLines(os.Stdin, func() { endOfInput(errEndOfInput) })

	began := time.Now()
	sweepAbandonedFolders()
	folder, err := openFolder(settings.dir)
	if err != nil {
		return err
	}
	defer folder.close()
	plane := &plane{settings: settings, folder: folder, ctx: ctx}
	defer plane.stopAll()
	if err := plane.up(); err != nil {
		return err
	}
	if err := answer(plane.ready(time.Since(began))); err != nil {
		return err
	}
	return serve(plane, commands)
}

var errEndOfInput = errors.New("stdin has ended, and the control plane lives only as long as its stdin: keep it open")

type settings struct {
	bin, dir              string
	controllerManager     bool
	controllers           string
	auditLog, auditPolicy string
	fast                  bool
	timeout               time.Duration
	apiserverFlags        []string
}

func parse(args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("controlplane up", flag.ContinueOnError)
	flags.StringVar(&s.bin, "bin", "", "folder with etcd, kube-apiserver and kube-controller-manager: what build.sh prints")
	flags.StringVar(&s.dir, "dir", "", "folder for data, keys, logs and kubeconfig; kept afterwards (default: a temporary one)")
	flags.BoolVar(&s.controllerManager, "controller-manager", true, "run kube-controller-manager too")
	flags.StringVar(&s.controllers, "controllers", defaultControllers, "controllers that kube-controller-manager runs")
	flags.StringVar(&s.auditLog, "audit-log", "", "file the API server writes its audit log to, one JSON line per finished request")
	flags.StringVar(&s.auditPolicy, "audit-policy", "", "audit policy file (default: metadata of all requests but health checks)")
	flags.BoolVar(&s.fast, "fast", false, "let etcd skip fsync: survives a killed process, not a power cut")
	flags.DurationVar(&s.timeout, "timeout", 2*time.Minute, "how long a start may take")
	flags.Func("apiserver-flag", "one more flag for kube-apiserver; may be repeated", func(value string) error {
		s.apiserverFlags = append(s.apiserverFlags, value)
		return nil
	})
	flags.Usage = func() {
		fmt.Fprint(os.Stderr, usage)
		flags.PrintDefaults()
	}
	if len(args) == 0 || args[0] != "up" {
		flags.Usage()
		if len(args) > 0 && (args[0] == "--help" || args[0] == "-h") {
			return s, flag.ErrHelp
		}
		return s, errors.New("the one command is: up")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if s.bin == "" {
		return s, errors.New(`--bin is missing; give it the folder that build.sh prints: --bin "$(tests/controlplane/build.sh)"`)
	}
	return s, nil
}

// Hands over stdin line by line. Calls ended at end of input once the last line was taken, so that a caller's death also
// interrupts a command that is waiting.
func readLines(input *os.File, ended func()) <-chan string {
	lines := make(chan string)
	go func() {
		defer ended()
		scanner := bufio.NewScanner(input)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
	}()
	return lines
}

type reply struct {
	OK      bool           `json:"ok"`
	Command string         `json:"command"`
	Error   string         `json:"error,omitempty"`
	PIDs    map[string]int `json:"pids"`
	Seconds float64        `json:"seconds"`
}

// Answers commands until told to stop, which is not an error: shutdown, end of input or a signal.
func serve(plane *plane, commands <-chan string) error {
	for {
		select {
		case <-plane.ctx.Done():
			return nil
		case line := <-commands:
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			began := time.Now()
			err := plane.obey(words)
			result := reply{OK: err == nil, Command: strings.Join(words, " "), PIDs: plane.pids(), Seconds: seconds(time.Since(began))}
			if err != nil {
				result.Error = err.Error()
			}
			if err := answer(result); err != nil {
				return err
			}
			if words[0] == "shutdown" && err == nil {
				return nil
			}
		}
	}
}

func answer(value any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("answering on stdout: %w", err)
	}
	return nil
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
