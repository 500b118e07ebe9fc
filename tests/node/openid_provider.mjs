// An OpenID provider for tests: node openid_provider.mjs PORT REDIRECT_URI
// Whoever logs in as NAME is NAME@headwater.test; "unverified…" has an address that nobody verified. Any password does.
import Provider from 'oidc-provider';

const [port, redirectUri] = process.argv.slice(2);

function client(id, claims) {
  return { client_id: id, client_secret: `secret-of-${id}`, redirect_uris: [redirectUri], ...claims };
}

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [client('headwater'), client('another')],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  // Google, Keycloak and Entra put the address into the ID token; "thin…" has it at the userinfo endpoint alone.
  conformIdTokenClaims: false,
  async findAccount(_, id) {
    return {
      accountId: id,
      async claims(use) {
        const found = { sub: id, email: `${id}@headwater.test`, email_verified: !id.startsWith('unverified') };
        return use === 'id_token' && id.startsWith('thin') ? { sub: id } : found;
      },
    };
  },
  cookies: { keys: ['of the test'] },
});

provider.listen(Number(port), '127.0.0.1');
