package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Writes ca.crt, ca.key, apiserver.crt, apiserver.key and the key pair for ServiceAccount tokens into dir.
// The certificates are valid from a day ago for ten years, so tests may move the clock.
func writeKeys(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: "controlplane-ca"},
		NotBefore:             now.AddDate(0, 0, -1),
		NotAfter:              now.AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	serving := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1),
		Subject:      pkix.Name{CommonName: "kube-apiserver"},
		NotBefore:    authority.NotBefore,
		NotAfter:     authority.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, net.IPv4(10, 0, 0, 1)},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
	}
	authorityKey, err := writeKey(filepath.Join(dir, "ca.key"))
	if err != nil {
		return err
	}
	servingKey, err := writeKey(filepath.Join(dir, "apiserver.key"))
	if err != nil {
		return err
	}
	accountsKey, err := writeKey(filepath.Join(dir, "serviceaccounts.key"))
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&accountsKey.PublicKey)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, "serviceaccounts.pub"), "PUBLIC KEY", public); err != nil {
		return err
	}
	if err := sign(filepath.Join(dir, "ca.crt"), authority, authority, &authorityKey.PublicKey, authorityKey); err != nil {
		return err
	}
	return sign(filepath.Join(dir, "apiserver.crt"), serving, authority, &servingKey.PublicKey, authorityKey)
}

func writeKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "PRIVATE KEY", der)
}

func sign(path string, subject, issuer *x509.Certificate, key *ecdsa.PublicKey, issuerKey *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, subject, issuer, key, issuerKey)
	if err != nil {
		return fmt.Errorf("signing %s: %w", path, err)
	}
	return writePEM(path, "CERTIFICATE", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
