"""User data: what a guest is given to do at its first boot, looked at before it is given.

cloud-init's kinds of it are `kinds`, multi-part messages and archives are taken apart by
`parts`, `check` says what a guest could not use, and `schema` asks cloud-init's own schema.
Nothing of it is ever run or fetched here, and no message quotes it: it may hold secrets.
"""

from blocks.user_data.check import USER_DATA_LIMIT, check_user_data, kinds_in, wrong_for_guest
from blocks.user_data.kinds import Kind

__all__ = ["USER_DATA_LIMIT", "Kind", "check_user_data", "kinds_in", "wrong_for_guest"]
