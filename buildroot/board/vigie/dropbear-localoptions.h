/* Keys only: a box on a network has no password to guess. */
#define DROPBEAR_SVR_PASSWORD_AUTH 0
/* A login is for looking and repairing, not for tunnels. */
#define DROPBEAR_SVR_LOCALTCPFWD 0
#define DROPBEAR_SVR_REMOTETCPFWD 0
#define DROPBEAR_SVR_AGENTFWD 0
