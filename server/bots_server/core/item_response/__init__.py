"""The item_response evidence model: a dynamic item-response model that learns from the columns a dataset has.

    logit p_i(t) = x_i . theta(t) + delta_i(t)
    theta(t) = theta(t - 1) + Normal(0, Q)                          ability of the policy, and weights of the inputs
    delta_i(t) = rho delta_i(t - 1) + Normal(0, (1 - rho^2) s2)     what the inputs do not explain of task i

moments   integrals over one logit
inputs    x_i, of some tasks or of all, without an `[N, d]` array
model     the state, its update, and the alpha and beta that follow from it
summary   what a person sees of it
transfer  what another run takes over
"""

from bots_server.core.item_response.model import BY_CELL as BY_CELL
from bots_server.core.item_response.model import ItemResponse as ItemResponse
from bots_server.core.item_response.model import Residuals as Residuals
from bots_server.core.item_response.model import alpha_beta as alpha_beta
from bots_server.core.item_response.model import baseline as baseline
from bots_server.core.item_response.model import deviating as deviating
from bots_server.core.item_response.model import rough_logits as rough_logits
from bots_server.core.item_response.model import start as start
from bots_server.core.item_response.model import update as update
from bots_server.core.item_response.model import without_own as without_own
from bots_server.core.item_response.summary import InputWeight as InputWeight
from bots_server.core.item_response.summary import ItemResponseSummary as ItemResponseSummary
from bots_server.core.item_response.summary import summarise as summarise
from bots_server.core.item_response.transfer import carry as carry
