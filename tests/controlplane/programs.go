package main

import (
	"fmt"
	"path/filepath"
)

// What the operator and its tests rely on. None needs a node or a cloud, and none deletes pods for want of a node. The
// protection controllers take off the finalizer that the API server puts on every volume claim.
const defaultControllers = "clusterrole-aggregation-controller,cronjob-controller,daemonset-controller,deployment-controller," +
	"disruption-controller,endpointslice-controller,garbage-collector-controller,job-controller,namespace-controller," +
	"persistentvolume-protection-controller,persistentvolumeclaim-protection-controller,replicaset-controller," +
	"resourcequota-controller,root-ca-certificate-publisher-controller,service-cidr-controller,serviceaccount-controller," +
	"statefulset-controller,ttl-after-finished-controller,validatingadmissionpolicy-status-controller"

const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*"]
- level: Metadata
`

// The programs with their arguments, in the order they start.
func (p *plane) programs() []*child {
	keys := func(name string) string { return p.folder.join("pki", name) }
	etcdURL := fmt.Sprintf("http://127.0.0.1:%d", p.ports.etcd)
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", p.ports.etcdPeer)

	database := p.program(etcd, func() error { return p.get(etcdURL+"/health", "") },
		"--name=controlplane",
		"--data-dir="+p.folder.join("etcd"),
		"--listen-client-urls="+etcdURL,
		"--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peerURL,
		"--initial-advertise-peer-urls="+peerURL,
		"--initial-cluster=controlplane="+peerURL,
		"--log-level=warn",
		// A lone member elects itself; with the default of one second every start would wait that long.
		"--heartbeat-interval=20",
		"--election-timeout=200",
	)
	if p.settings.fast {
		database.args = append(database.args, "--unsafe-no-fsync")
	}

	server := p.program(apiserver, func() error { return p.get(p.server()+"/readyz", p.tokens.admin) },
		"--etcd-servers="+etcdURL,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", p.ports.apiserver),
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--tls-cert-file="+keys("apiserver.crt"),
		"--tls-private-key-file="+keys("apiserver.key"),
		"--cert-dir="+p.folder.join("pki"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+keys("serviceaccounts.pub"),
		"--service-account-signing-key-file="+keys("serviceaccounts.key"),
		"--token-auth-file="+p.folder.join("tokens.csv"),
		"--authorization-mode=RBAC",
		"--allow-privileged=true",
	)
	if p.settings.auditLog != "" {
		policy := p.settings.auditPolicy
		if policy == "" {
			policy = p.folder.join("audit-policy.yaml")
		}
		server.args = append(server.args, "--audit-log-path="+absolute(p.settings.auditLog), "--audit-policy-file="+absolute(policy))
	}
	server.args = append(server.args, p.settings.apiserverFlags...)

	if !p.settings.controllerManager {
		return []*child{database, server}
	}
	healthURL := fmt.Sprintf("https://127.0.0.1:%d/healthz", p.ports.controllerManager)
	controllers := p.program(controllerManager, func() error { return p.get(healthURL, "") },
		"--kubeconfig="+p.folder.join("controller-manager.kubeconfig"),
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", p.ports.controllerManager),
		"--tls-cert-file="+keys("apiserver.crt"),
		"--tls-private-key-file="+keys("apiserver.key"),
		"--root-ca-file="+keys("ca.crt"),
		"--leader-elect=false",
		"--controllers="+p.settings.controllers,
		// Its own default of 20 requests a second would make a test that deletes a full namespace wait.
		"--kube-api-qps=300",
		"--kube-api-burst=600",
	)
	return []*child{database, server, controllers}
}

func (p *plane) program(name string, isHealthy func() error, args ...string) *child {
	return &child{
		name:      name,
		path:      absolute(filepath.Join(p.settings.bin, name)),
		args:      args,
		logPath:   p.folder.join("logs", name+".log"),
		isHealthy: isHealthy,
	}
}

// The programs run in another folder than the caller.
func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}
