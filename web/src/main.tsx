import { browserShell } from './browser';
import { showPage } from './page';

showPage(browserShell());
