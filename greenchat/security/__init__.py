"""Who is who: keys, certificates and encrypted connections. All cryptography is OpenSSL's."""
