package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	etcd              = "etcd"
	apiserver         = "kube-apiserver"
	controllerManager = "kube-controller-manager"

	portAttempts = 5
	logTail      = 20
	pollEvery    = 20 * time.Millisecond
)

// A running control plane. All its methods belong to the main thread.
type plane struct {
	settings settings
	folder   *folder
	ctx      context.Context // done when the supervisor is to stop
	ports    ports
	tokens   tokens
	client   *http.Client
	children []*child // in the order they start
}

type tokens struct{ admin, controllerManager string }

type ready struct {
	Ready      bool           `json:"ready"`
	Kubeconfig string         `json:"kubeconfig"`
	Server     string         `json:"server"`
	CAFile     string         `json:"caFile"`
	AdminToken string         `json:"adminToken"`
	Dir        string         `json:"dir"`
	PIDs       map[string]int `json:"pids"`
	Seconds    float64        `json:"seconds"`
}

func (p *plane) ready(took time.Duration) ready {
	return ready{true, p.folder.join("kubeconfig"), p.server(), p.folder.join("pki", "ca.crt"), p.tokens.admin, p.folder.path,
		p.pids(), seconds(took)}
}

func (p *plane) server() string { return fmt.Sprintf("https://127.0.0.1:%d", p.ports.apiserver) }

func (p *plane) pids() map[string]int {
	pids := map[string]int{}
	for _, child := range p.children {
		if child.running() {
			pids[child.name] = child.process.Pid
		}
	}
	return pids
}

// Brings everything up. A port that somebody took between choosing and binding means another try with other ports.
func (p *plane) up() error {
	if err := p.prepare(); err != nil {
		return fmt.Errorf("preparing %s: %w", p.folder.path, err)
	}
	for attempt := 1; ; attempt++ {
		err := p.tryUp()
		var died diedEarly
		if err == nil || attempt == portAttempts || !errors.As(err, &died) || !died.lostItsPort() {
			return err
		}
		fmt.Fprintf(os.Stderr, "controlplane: somebody took a port of %s, trying others\n", died.name)
		p.stopAll()
	}
}

func (p *plane) prepare() error {
	if err := writeKeys(p.folder.join("pki")); err != nil {
		return err
	}
	authority, err := os.ReadFile(p.folder.join("pki", "ca.crt"))
	if err != nil {
		return err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	p.client = &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, DisableKeepAlives: true},
	}
	p.tokens = tokens{rand.Text(), rand.Text()}
	if err := os.MkdirAll(p.folder.join("logs"), 0o700); err != nil {
		return err
	}
	// The controllers act under their own name, so that an audit log tells their writes from a test's.
	known := p.tokens.admin + ",admin,admin,\"system:masters\"\n" +
		p.tokens.controllerManager + ",system:kube-controller-manager,controller-manager,\"system:masters\"\n"
	if err := writePrivate(p.folder.join("tokens.csv"), known); err != nil {
		return err
	}
	return writePrivate(p.folder.join("audit-policy.yaml"), auditPolicy)
}

func (p *plane) tryUp() error {
	var err error
	if p.ports, err = freePorts(); err != nil {
		return err
	}
	if err := p.writeKubeconfig("kubeconfig", "admin", p.tokens.admin); err != nil {
		return err
	}
	if err := p.writeKubeconfig("controller-manager.kubeconfig", controllerManager, p.tokens.controllerManager); err != nil {
		return err
	}
	p.children = p.programs()
	for at, child := range p.children {
		if err := child.start(); err != nil {
			return err
		}
		if err := p.wait(child, p.children[:at+1], child.isHealthy); err != nil {
			return err
		}
	}
	return p.wait(p.children[len(p.children)-1], p.children, p.hasDefaultServiceAccount)
}

// Waits for a condition that the named child brings about, while all watched ones live.
func (p *plane) wait(named *child, watched []*child, condition func() error) error {
	deadline := time.Now().Add(p.settings.timeout)
	for {
		err := condition()
		for _, child := range watched {
			if !child.running() {
				return diedEarly{child.name, child.status, child.logPath, child.lastWords(logTail)}
			}
		}
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %v: %w; the end of %s:\n%s",
				named.name, p.settings.timeout, err, named.logPath, named.lastWords(logTail))
		}
		select {
		case <-p.ctx.Done():
			return fmt.Errorf("stopped while waiting for %s: %w", named.name, context.Cause(p.ctx))
		case <-time.After(pollEvery):
		}
	}
}

// Carries out one command from stdin.
func (p *plane) obey(words []string) error {
	if len(words) == 1 {
		switch words[0] {
		case "pids":
			return nil
		case "shutdown":
			p.stopAll()
			return nil
		}
	}
	if len(words) != 2 {
		return errors.New("commands are: stop NAME, start NAME, restart NAME, pause NAME, resume NAME, pids, shutdown")
	}
	at := slices.IndexFunc(p.children, func(c *child) bool { return c.name == words[1] })
	if at < 0 {
		return fmt.Errorf("no program %q here", words[1])
	}
	child := p.children[at]
	switch words[0] {
	case "stop":
		child.stop()
		return nil
	case "start":
		return p.start(child)
	case "restart":
		child.stop()
		return p.start(child)
	case "pause":
		return child.signal(syscall.SIGSTOP)
	case "resume":
		return child.signal(syscall.SIGCONT)
	}
	return fmt.Errorf("unknown command %q", words[0])
}

func (p *plane) start(program *child) error {
	if err := program.start(); err != nil {
		return err
	}
	return p.wait(program, []*child{program}, program.isHealthy)
}

// Stops everything, last started first. Killing is enough: nothing here buffers what must not be lost.
func (p *plane) stopAll() {
	for _, child := range slices.Backward(p.children) {
		child.stop()
	}
}

func (p *plane) get(url, token string) error {
	return p.request(http.MethodGet, url, token, "", http.StatusOK)
}

func (p *plane) request(method, url, token, body string, accepted ...int) error {
	request, err := http.NewRequestWithContext(p.ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	if !slices.Contains(accepted, response.StatusCode) {
		return fmt.Errorf("%s %s: %s: %s", method, url, response.Status, said)
	}
	return nil
}

// Pods need the ServiceAccount `default`. A controller makes it; where none runs, this does.
func (p *plane) hasDefaultServiceAccount() error {
	accounts := p.server() + "/api/v1/namespaces/default/serviceaccounts"
	if p.settings.controllerManager {
		return p.get(accounts+"/default", p.tokens.admin)
	}
	return p.request(http.MethodPost, accounts, p.tokens.admin,
		`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}`, http.StatusCreated, http.StatusConflict)
}

func (p *plane) writeKubeconfig(name, user, token string) error {
	authority, err := os.ReadFile(p.folder.join("pki", "ca.crt"))
	if err != nil {
		return err
	}
	return writePrivate(p.folder.join(name), fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: controlplane
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    token: %s
contexts:
- name: controlplane
  context:
    cluster: controlplane
    user: %s
current-context: controlplane
`, p.server(), base64.StdEncoding.EncodeToString(authority), user, token, user))
}

// Replaces the file in one step, readable by its owner only.
func writePrivate(path, content string) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.WriteString(content)
	if err := errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
